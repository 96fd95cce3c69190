"""Write DRAW AUDIO as one HTML page: `python -m lib.draw_audio OUT.html`."""

import sys

from lib.common.errors import Parser, UserError
from lib.common.files import write_bytes
from lib.common.processes import use_utf8
from lib.draw_audio import standalone_page

use_utf8()
parser = Parser(prog="python -m lib.draw_audio", description=__doc__)
parser.add_argument("page", metavar="OUT.html", help="the file to write; it needs neither Jupyter nor a network")
try:
    page = parser.parse_args().page
    write_bytes(page, standalone_page().encode())
    print(f"Wrote {page}; open it in a browser.")
except UserError as error:
    sys.exit(str(error))
