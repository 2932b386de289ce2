"""What became of each picture of a source: one account, in pictures, that adds up."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Account:
    """Numbers of pictures; each file or member with a picture's suffix is one.

    seen = kept + duplicates_across_splits + repeats_within_splits + skipped + over_limit.

    kept: in the prepared data, in one row for each of its captions (one, without captions).
    duplicates_across_splits: left out, for a split held out before theirs has the same pixels.
    repeats_within_splits: left out, for a picture of their own split has the same pixels; of one merged, the captions
    stay.
    repeats_kept: of those kept, how many have the pixels of one before them in their split.
    skipped: unusable, each listed with its reason.
    over_limit: usable, but beyond the most pictures a split may have.
    """

    seen: int = 0
    kept: int = 0
    duplicates_across_splits: int = 0
    repeats_within_splits: int = 0
    repeats_kept: int = 0
    skipped: int = 0
    over_limit: int = 0

    @property
    def adds_up(self) -> bool:
        """Is every picture that was seen in exactly one place?"""
        left_out = self.duplicates_across_splits + self.repeats_within_splits + self.skipped + self.over_limit
        return self.seen == self.kept + left_out and self.repeats_kept <= self.kept
