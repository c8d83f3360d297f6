"""L4 authorization: model, compiler, evaluator. Pure: no I/O, and no other room of this project."""
