"""An app in the browser: a microphone or a file, and what one or several runs predict of it."""
