"""What a training run is asked to do: options and run files."""
