"""What the query `fraud` promises, once more: an alert at a customer's third order within ten minutes, quiet after fifteen."""

from datetime import datetime, timedelta

from harness.job.models import Model, Timers, Yielded

EPOCH = datetime(1970, 1, 1)


class Fraud(Model):
    """The times of a customer's last orders."""

    key = "customer"

    def start(self) -> None:
        self.customer = ""
        self.times: list[datetime] = []

    def events(self, rows, now: datetime, timers: Timers) -> Yielded:
        for row in sorted(rows, key=lambda row: row.ordered_at):
            self.customer = row.customer
            self.times = [at for at in self.times if at > row.ordered_at - timedelta(minutes=10)] + [row.ordered_at]
            if len(self.times) == 3:
                yield self.row("alert", row.ordered_at)
        timers.only(self.times[-1] + timedelta(minutes=15))

    def timer(self, at: datetime, now: datetime, timers: Timers) -> Yielded:
        self.times = []
        yield self.row("quiet", at)

    def row(self, kind: str, at: datetime) -> dict[str, object]:
        return {"customer": self.customer, "kind": kind, "at_ms": (at - EPOCH) // timedelta(milliseconds=1)}
