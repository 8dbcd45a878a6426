"""What the cases of the convolutions share."""

from ggml_rpc_ref.ops.shared.convolution import F16_SUM_OF_PRODUCTS, SUM_OF_PRODUCTS

BY_KERNEL = {"F32": SUM_OF_PRODUCTS, "F16": F16_SUM_OF_PRODUCTS}

NON_FINITE = "values:1,-2,nan,0.5,3,-0.25,inf,2,-1,0.125,-inf,4,-0.0,1.5,-3,0.75,2.5,5,-0.5"
"""NaN and infinities among small numbers: no huge ones, whose products overflow in one order of summation and not in another."""
