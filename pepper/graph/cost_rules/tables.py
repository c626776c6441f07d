"""Operators that look something up, those of classical machine learning too, and those that copy or do nothing."""

from pepper.graph.cost_kinds import Call, Product, Rule, UnknownCostError, Work, bytes_of


def moves(kind: str) -> Rule:
    """All that is read and written, once; no arithmetic that counts."""
    work = Work(kind)
    return lambda _: work


def view(_: Call) -> Work:
    """Nothing moves."""
    return Work("view", read_bytes=0, written_bytes=0)


def lookup(call: Call) -> Work:
    """Only the rows that are asked for are read, not the whole table."""
    return Work("gather", read_bytes=call.sizes(*call.inputs[1:], *call.outputs[:1]))


def run(call: Call) -> Work:
    """What is taken is copied; the rest is not read."""
    return Work("copy", read_bytes=call.sizes(*call.inputs[1:], *call.outputs[:1]))


def embed(call: Call) -> Work:
    """Three tables (word, position, segment) are read at the given indices."""
    rows = call.outputs[0]
    return Work("normalization", read_bytes=call.sizes(*call.inputs[:2], rows, rows, rows))


def sequence(call: Call) -> Work:
    """Sequences, maps and optionals have no size of their own: what is read is written, or the other way round."""
    read, written = (sum(bytes_of(t) or 0 for t in side if t is not None) for side in (call.inputs, call.outputs))
    return Work("sequence", read_bytes=read or written, written_bytes=written or read)


def linear(call: Call) -> Work:
    """Rows of features times a table that is held in an attribute."""
    return Work("classical", (_times_table(call, "coefficients"),))


def support_vectors(call: Call) -> Work:
    """Rows of features meet every support vector, and what comes of that the coefficients of each; without support
    vectors it is linear."""
    vectors = _times_table(call, "support_vectors")
    if not vectors.n:
        return linear(call)
    weighed = len(call.attribute("coefficients", ())) // vectors.n
    return Work("classical", (vectors, Product(1, vectors.m, vectors.n, weighed)))


def _times_table(call: Call, table: str) -> Product:
    shape = call.shape(0)
    rows, features = (1, *shape)[-2:]
    return Product(1, rows, features, len(call.attribute(table, ())) // max(features, 1))


def opaque(reason: str) -> Rule:
    """What cannot be told from the graph."""

    def rule(_: Call) -> Work:
        raise UnknownCostError(reason)

    return rule
