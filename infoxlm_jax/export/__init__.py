"""Our models in the forms that other libraries load."""
