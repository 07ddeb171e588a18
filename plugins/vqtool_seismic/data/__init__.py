"""Seismograms from SeisBench folders, miniSEED and SAC."""
