"""Methods, directions and seeds on one data set, into tables beside the paper's."""
