"""What every optimizer is made of: hyperparameters, groups, state, the base class. It knows no rule and no subclass."""
