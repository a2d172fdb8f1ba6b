"""What happens later: owed fetches and whatever else runs without a request."""
