"""What is counted about servers and runs, and how counts add up."""
