"""One row of a benchmark."""

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Row:
    """One figure beside its peer's. Values are medians over `runs`; `bound` is what physics or the issue allows."""

    measure: str
    unit: str
    ours: float
    peer: str = ""
    peer_value: float | None = None
    bound: str = ""
    runs: int = 1
    versions: str = ""

    @property
    def ratio(self) -> float | None:
        """Ours over the peer's; none without a peer."""
        return None if not self.peer_value else self.ours / self.peer_value

    def as_dict(self) -> dict[str, object]:
        """Return the row with its ratio, for the JSON file."""
        return {**asdict(self), "ratio": self.ratio}

    def cells(self) -> tuple[str, ...]:
        """Return the row as text, in the order of the table."""
        numbers = [f"{value:.2f}" if value is not None else "-" for value in (self.ours, self.peer_value, self.ratio)]
        return (
            self.measure,
            self.unit,
            numbers[0],
            self.peer or "-",
            numbers[1],
            numbers[2],
            self.bound or "-",
            str(self.runs),
            self.versions or "-",
        )
