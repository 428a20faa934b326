"""Which names a pickle may refer to: those that honest models of scikit-learn have, and no others of what is installed.

An allow-list: a list of what is dangerous is never complete (picklescan's had over 60 advisories). A name of the
standard library, or of a package below, that is not listed is forbidden; one of any other package is unknown.
"""

from __future__ import annotations

import re
import sys
from enum import Enum


class Standing(Enum):
    KNOWN, UNKNOWN, FORBIDDEN = "known", "unknown", "forbidden"


# beside the standard library: packages of which only what KNOWN lists may be named, since they can run code or open
# files and sockets
CLOSED = frozenset(
    [
        "numpy",
        "scipy",
        "sklearn",
        "joblib",
        "skops",
        "pandas",
        "pip",
        "setuptools",
        "pkg_resources",
        "wheel",
        "cloudpickle",
        "dill",
        "jsonpickle",
        "torch",
        "tensorflow",
        "keras",
        "onnxruntime",
        "jax",
        "numba",
        "bentoml",
        "_bentoml_impl",
        "_bentoml_sdk",
        "uvicorn",
        "starlette",
        "fsspec",
        "requests",
        "httpx",
        "aiohttp",
        "urllib3",
        "h5py",
        "IPython",
        "pytest",
        "_pytest",
        "py",
        "jinja2",
        "yaml",
        "click",
        "typer",
        "docker",
        "paramiko",
        "airflow",
        "packer_lib",
        "mlpacker_runtime",
        "__main__",
        "__builtin__",
        "commands",
    ]
)
# Classes of scikit-learn. Left out are modules that fetch data or run processes, and what a module has imported from
# elsewhere and is more than a class of numbers (tests/artefacts/test_names.py looks at every one of the installed).
SKLEARN = (
    r"sklearn(?!\.(datasets|callback|externals|tests|conftest|inspection|experimental)\b)"
    r"(?!\.utils\.(_testing|_test_common|parallel|_show_versions|discovery|estimator_checks)\b)(?!(\.\w+)*\.(tests|_plot)\.)(\.\w+)+"
)
KNOWN = (
    (SKLEARN, r"_*(?!MethodType$|Memory$|Path$|Parameter$|UserDict$)[A-Z]\w*|__pyx_unpickle_\w+|newObj"),
    (r"sklearn\.metrics(\.\w+)*", r"[a-z]\w*_(score|loss|error|kernel|distances?|coefficient|corrcoef|deviance)"),
    (r"sklearn\.feature_selection\.\w+", r"chi2|(f|r|mutual_info)_(classif|regression|oneway)"),
    (r"joblib\.numpy_pickle", r"NumpyArrayWrapper"),
    (
        r"numpy",
        r"dtype|ndarray|matrix|u?int(8|16|32|64|c|p)?|float(16|32|64|128)|longdouble|complex(64|128|256)|bool_?|str_"
        r"|bytes_|object_|datetime64|timedelta64|void|log(1p|2|10)?|exp(2|m1)?|sqrt|cbrt|square|abs|absolute|sign|sin"
        r"|cos|tan|arc(sin|cos|tan)h?|(sin|cos|tan)h|ravel|nan_to_num|clip|mean|median|sum|min|max|round|reciprocal",
    ),
    (r"numpy\.dtypes", r"\w+DType"),
    (r"numpy\.(_core|core)\.multiarray", r"_reconstruct|scalar"),
    (r"numpy\.(_core|core)\.numeric", r"_frombuffer"),
    (r"numpy\.(_core|core)\._internal", r"_convert_to_stringdtype_kwargs"),
    (r"numpy\.ma(\.core)?", r"MaskedArray|_mareconstruct|MaskedConstant"),
    (r"numpy\.random\._pickle", r"__(generator|bit_generator|randomstate)_ctor"),
    (r"numpy\.random(\.\w+)?", r"MT19937|PCG64(DXSM)?|Philox|SFC64|RandomState|Generator|SeedSequence"),
    (r"numpy\.random\.bit_generator", r"__pyx_unpickle_SeedSequence"),
    (r"scipy\.sparse(\._?\w+)?", r"(bsr|coo|csc|csr|dia|dok|lil)_(matrix|array)"),
    (r"scipy\.interpolate(\._\w+)?", r"interp1d|BSpline|PPoly|PchipInterpolator|CubicSpline"),
    (r"scipy\.special(\._\w+)?", r"expit|logit|boxcox|inv_boxcox"),
    (r"scipy\.spatial\._?ckdtree", r"cKDTree"),
    (
        r"builtins",
        r"object|list|tuple|dict|set|frozenset|slice|range|int|float|complex|bool|str|bytes|bytearray|NoneType|NotImplemented"
        r"|Ellipsis",
    ),
    (r"copyreg", r"_reconstructor|__newobj__"),
    (r"_codecs", r"encode"),
    (r"collections", r"OrderedDict|defaultdict|Counter|deque"),
    (r"datetime", r"datetime|date|time|timedelta|timezone"),
    (r"decimal", r"Decimal"),
    (r"fractions", r"Fraction"),
    (r"re", r"_compile"),
)
_PATTERNS = tuple((re.compile(module), re.compile(name)) for module, name in KNOWN)


def standing(module: str, name: str) -> Standing:
    """Of what a pickle calls `module.name`."""
    if any(modules.fullmatch(module) and names.fullmatch(name) for modules, names in _PATTERNS):
        return Standing.KNOWN
    top = module.partition(".")[0]
    if top in CLOSED or top in sys.stdlib_module_names or not _is_class_path(name):
        return Standing.FORBIDDEN
    return Standing.UNKNOWN


def _is_class_path(name: str) -> bool:
    """A name without a dot, or a class in a class: anything else may lead through what a module has imported."""
    return "." not in name or all(part.lstrip("_")[:1].isupper() for part in name.split("."))
