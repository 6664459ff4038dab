"""Steps and matrix products by turns, as ratios in the same run; the section of the speed page measures them."""

from sections import products

from .timing import SUITE

version = SUITE
ROUNDS = 7
NAN = float("nan")


class AfterProduct:
    """A step's time on all threads divided by that on one, right after a product; at most 1.05, and shared 0.8."""

    params = [["plain", "shared"], products.SIZES[:4]]
    param_names = ["threads of BLAS", "elements"]
    unit = "times one thread"
    timeout = 120

    def track_ratio_to_one_thread(self, how, n):
        return 1 / products.steps(n, ROUNDS)[how]


class ProductBetweenSteps:
    """A product's time between steps on all threads divided by that between steps on one; at most 1.03."""

    params = [["helpers", "shared"], list(products.BESIDE)]
    param_names = ["threads", "beside"]
    unit = "times without helpers"
    timeout = 120

    def track_ratio_to_no_helpers(self, how, beside):
        return products.products(beside, ROUNDS).get(how, NAN)
