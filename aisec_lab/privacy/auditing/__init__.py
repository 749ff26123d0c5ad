"""Privacy audits: lower bounds on the epsilon of a mechanism or a training, whatever is claimed."""
