"""The six functions of the model, and the verbs that use them."""
