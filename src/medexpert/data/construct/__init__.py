"""Construction of question-answer items for training, the demo and the tests."""
