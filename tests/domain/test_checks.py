"""Where SQLite's file is safe; `tests.worker.test_doctor` has the other checks."""

import pytest

from app.domain.checks import check_sqlite_location

MOUNTS = """\
overlay / overlay rw 0 0
/dev/sda1 /srv/data ext4 rw 0 0
server:/x /mnt/nfs nfs4 rw 0 0
me@host: /mnt/ssh fuse.sshfs rw 0 0
tmpfs /run tmpfs rw 0 0
host /mnt/vm virtiofs rw 0 0
host /Users/my\\040folder fuse.grpcfuse rw 0 0
systemd-1 /mnt/auto autofs rw 0 0
server:/y /mnt/auto nfs rw 0 0
server:/z /mnt/over cifs rw 0 0
/dev/sdb /mnt/over ext4 rw 0 0
odd line
"""


@pytest.mark.parametrize(
    ("path", "mounts", "name"),
    [
        ("/srv/data/syncs.db", MOUNTS, None),
        ("/srv/database.db", MOUNTS, "sqlite_ephemeral"),
        ("/mnt/nfs/syncs.db", MOUNTS, "sqlite_on_network"),
        ("/mnt/ssh/syncs.db", MOUNTS, "sqlite_on_network"),
        ("/mnt/vm/syncs.db", MOUNTS, "sqlite_on_network"),
        ("/Users/my folder/syncs.db", MOUNTS, "sqlite_on_network"),
        ("/mnt/auto/syncs.db", MOUNTS, "sqlite_on_network"),
        ("/mnt/over/syncs.db", MOUNTS, None),
        ("/run/syncs.db", MOUNTS, "sqlite_ephemeral"),
        ("/srv/data/syncs.db", "", None),
        ("/tmp/syncs.db", "", "sqlite_ephemeral"),
    ],
)
def test_the_closest_mount_decides_where_sqlite_is_safe(
    path: str, mounts: str, name: str | None
) -> None:
    """Without /proc/mounts only the folder counts."""
    found = check_sqlite_location(path, mounts)
    assert (found and found.name) == name
