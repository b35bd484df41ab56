"""What everything that is registered must hold, ours and a user's own alike."""
