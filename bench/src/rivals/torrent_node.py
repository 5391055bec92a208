"""Seeds or downloads one torrent with libtorrent.

  torrent_node.py seed FOLDER TORRENT PORT            prints `ready` after it has checked the file; serves until killed
  torrent_node.py fetch FOLDER TORRENT PORT SEEDER…   downloads the file; SEEDER is a port of 127.0.0.1. Prints `go` when
                                                      it starts to connect, then `done` and the time taken when the file
                                                      is complete, and exits at once without the interpreter's shutdown

The settings follow the manual's page on tuning for fast links and few peers. Peer discovery is switched off.
"""

import os
import sys
import time

import libtorrent

mode, folder, torrent, port = sys.argv[1:5]
seeders = [int(seeder) for seeder in sys.argv[5:]]

settings = libtorrent.high_performance_seed() if mode == "seed" else libtorrent.default_settings()
settings.update(
    {
        "listen_interfaces": f"127.0.0.1:{port}",
        "enable_dht": False,
        "enable_lsd": False,
        "enable_upnp": False,
        "enable_natpmp": False,
        "enable_outgoing_utp": False,
        "enable_incoming_utp": False,
        "allow_multiple_connections_per_ip": True,
        "out_enc_policy": 2,
        "in_enc_policy": 2,
        "request_queue_time": 3,
        "max_out_request_queue": 1500,
        "max_allowed_in_request_queue": 2000,
        "send_buffer_watermark": 3 * 1024 * 1024,
        "send_buffer_watermark_factor": 150,
        "recv_socket_buffer_size": 1024 * 1024,
        "send_socket_buffer_size": 1024 * 1024,
        "max_queued_disk_bytes": 64 * 1024 * 1024,
        "alert_mask": libtorrent.alert.category_t.status_notification
        | libtorrent.alert.category_t.error_notification
        | libtorrent.alert.category_t.storage_notification,
    }
)
session = libtorrent.session(settings)
parameters = libtorrent.add_torrent_params()
parameters.ti = libtorrent.torrent_info(torrent)
parameters.save_path = folder
parameters.flags &= ~libtorrent.torrent_flags.auto_managed
parameters.flags &= ~libtorrent.torrent_flags.paused
handle = session.add_torrent(parameters)
if mode == "seed":
    while not handle.status().is_seeding:
        time.sleep(0.05)
    print("ready", flush=True)
    while True:
        time.sleep(3600)

print("go", flush=True)
began = time.monotonic()
for seeder in seeders:
    handle.connect_peer(("127.0.0.1", seeder))
while not handle.status().is_seeding:
    session.wait_for_alert(100)
    for alert in session.pop_alerts():
        if isinstance(alert, libtorrent.torrent_error_alert | libtorrent.file_error_alert):
            sys.exit(alert.message())
handle.flush_cache()
flushed = False
while not flushed:
    session.wait_for_alert(100)
    flushed = any(isinstance(alert, libtorrent.cache_flushed_alert) for alert in session.pop_alerts())
print(f"done\ntransfer took {time.monotonic() - began:.6f}", flush=True)
os._exit(0)
