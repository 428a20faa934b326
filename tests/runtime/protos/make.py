"""What protoc makes of the schemas here: `<name>.set` the descriptors of NAME.proto, `<name>.bin` the message NAME.txt.

`uv run --no-project --with grpcio-tools python tests/runtime/protos/make.py` writes them anew; the first line of each
`.txt` names its message. protoc is no dependency of the project.
"""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
PROTOC = (sys.executable, "-m", "grpc_tools.protoc", f"-I{HERE}")

for proto in sorted(HERE.glob("*.proto")):
    subprocess.run([*PROTOC, f"--descriptor_set_out={proto.with_suffix('.set')}", proto], check=True)
    text = proto.with_suffix(".txt").read_bytes()
    kind = text.splitlines()[0].decode().removeprefix("# ")
    done = subprocess.run([*PROTOC, f"--encode={kind}", proto], input=text, stdout=subprocess.PIPE, check=True)
    proto.with_suffix(".bin").write_bytes(done.stdout)
