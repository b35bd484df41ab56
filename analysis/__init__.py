"""What was learnt: reads finished run folders only."""
