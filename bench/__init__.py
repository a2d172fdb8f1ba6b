"""What is measured and what is shaken: nothing here is part of the service."""
