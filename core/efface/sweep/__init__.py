"""Many fits and evaluations: methods with their settings x concepts, shared out between workers, results in a table."""
