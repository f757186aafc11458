"""What each scheduler is asked, and what is made of its answers."""
