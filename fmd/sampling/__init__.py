"""From weights and labels to images."""
