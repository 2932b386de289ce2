"""A registered model as a service that outside input cannot keep busy: limits, a queue, what a request may be."""
