"""The parts all optimizers share: hyperparameters, groups, state, the base class. It knows no rule and no subclass."""
