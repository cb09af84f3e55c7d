"""What a model learns to do: tasks, one file each."""
