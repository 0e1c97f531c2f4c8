"""CQL2 filters: parsed by the ``cql2`` package, checked and compiled to SQL by us.

Every operator, function and property comes from a white list, values are bound, and the kinds of
both sides must agree. Each condition becomes three things: SQL over a row, a :class:`Bound` on where
its rows can lie, and what remains to be tested there.

``cql2``'s own ``validate()`` is not called: it takes 0.2 s for ``a = 1`` and grows with the square of
the nesting (version 0.6), and everything it would refuse is refused here.
"""
