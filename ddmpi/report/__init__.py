"""What people see: the progress display, the summary and report.html."""
