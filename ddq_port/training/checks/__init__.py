"""What is looked at before a training or an evaluation: classes, data, the port itself."""
