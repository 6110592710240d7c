"""`somite doctor`: what is wrong with a data set, found before training, and what to mend first."""
