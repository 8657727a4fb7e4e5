"""How providers sign their requests: one module a scheme, each a pure function of plain values."""
