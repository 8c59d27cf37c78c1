"""How far two domains lie apart, per filter and as sets of features: numbers with intervals."""
