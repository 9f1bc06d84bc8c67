"""What a run shows: the page of a demonstration, the picture of a comparison, and the facts behind both."""
