"""Preprocessing: the features of a dataset are computed into its cache; and checks of dataset and cache."""
