"""What sees a model from outside: `record` its tensors, explain its answers."""
