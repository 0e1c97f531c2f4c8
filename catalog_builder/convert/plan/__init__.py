"""What is to be converted: sources become jobs, and what is done already is left out."""
