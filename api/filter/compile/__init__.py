"""CQL2 filters: parsed by the ``cql2`` package, validated and compiled to SQL here.

Every operator, function and property comes from a fixed list, values are bound, and the types of
both sides must match. Each condition becomes three things: SQL over a row, a :class:`Bound` on where
its rows can lie, and what remains to be tested there.

``cql2``'s own ``validate()`` is not called: it takes 0.2 s for ``a = 1`` and grows with the square of
the nesting (version 0.6), and everything it would reject is rejected here.
"""
