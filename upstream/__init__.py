"""What listens: frozen or finetunable models behind one interface."""
