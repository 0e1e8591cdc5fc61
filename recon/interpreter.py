"""What the messages of a scan's stream mean, the same whether they come from a file or over a connection."""

from __future__ import annotations

from recon.errors import ScanError
from recon.mrd.header import parse_header
from recon.mrd.wire import AcquisitionRun, Close, ConfigFile, ConfigText, HeaderXml, Message, Text
from recon.recipe import AUTO, apply_text, resolve, settings_of
from recon.scan import ScanHeader

_SHOWN = 80  # characters of a text in a remark


class Interpreter:
    """The header of one stream and the recipe that it asks for, message by message.

    `method` is as asked for beside the stream: "auto" leaves it to the stream, any other counts more than the
    stream's. Parameters beside "auto" go on top of what the stream's configuration names. Raises RecipeError where the
    method or a parameter of it is unknown. `remarks` are what whoever sent the stream may want to know of it.
    """

    def __init__(self, method: str = AUTO) -> None:
        self.header: ScanHeader | None = None
        self.recipe = resolve(method)
        self.measuring = False  # a readout came
        self.closed = False
        self.remarks: list[str] = []
        self._fixed = self.recipe.method != AUTO
        self._on_top = {} if self._fixed else settings_of(method)

    def take(self, message: Message) -> None:
        """Take in the next message; raises ScanError for one out of order, HeaderError or RecipeError for its content.

        What has no bearing on header and recipe passes.
        """
        if isinstance(message, AcquisitionRun):
            self._readouts(message)
        elif isinstance(message, HeaderXml):
            self._open(message)
        elif isinstance(message, ConfigFile):
            self._configure(message, message.name)
        elif isinstance(message, ConfigText):
            self._configure(message, message.text)
        elif isinstance(message, Text):
            self._adjust(message.text)
        self.closed = isinstance(message, Close)

    def _readouts(self, message: AcquisitionRun) -> None:
        if self.header is None:
            raise ScanError(f"a readout came at byte {message.offset} before the header: send the header first")
        self.measuring = True

    def _open(self, message: HeaderXml) -> None:
        if self.header is not None:
            raise ScanError(f"a second header came at byte {message.offset}: send one scan per connection")
        self.header = parse_header(message.xml)

    def _configure(self, message: Message, text: str) -> None:
        if self.measuring:  # else frames of one scan would differ in method, by when they became complete
            raise ScanError(
                f"a configuration came at byte {message.offset} after the first readout: send it before the header"
            )
        recipe = resolve(text, self._on_top)
        if not self._fixed:
            self.recipe = recipe

    def _adjust(self, text: str) -> None:
        """A JSON object between header and first readout sets parameters; any other text there sets nothing.

        FIRE names its configuration in that text as well, which counts as little as any where the method is fixed.
        """
        if self.header is None or self.measuring:
            return
        if not text.lstrip().startswith("{"):
            words = f"the text {text.rstrip(chr(0))[:_SHOWN]!r} after the header is no JSON object: it sets nothing"
            self.remarks.append(words)
        else:
            self.recipe = apply_text(self.recipe, text, keep_method=self._fixed, under=self._on_top)
