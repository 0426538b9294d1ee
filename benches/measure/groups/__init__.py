"""What is measured: for each group a function, whose documentation is its line in the help."""

from .cold import cold
from .cores import cores
from .exchange import exchange
from .find import find
from .growth import growth
from .idle import idle
from .ls import ls
from .readers import readers
from .ripgrep import rg
from .search import search
from .snapshots import snapshots
from .sparse import sparse
from .tools import tools
from .warm import again, random
from .write import write
from .yara import yara

GROUPS = {
    group.__name__: group
    for group in (
        cold,
        tools,
        again,
        random,
        readers,
        yara,
        rg,
        ls,
        find,
        write,
        exchange,
        sparse,
        cores,
        search,
        snapshots,
        growth,
        idle,
    )
}
