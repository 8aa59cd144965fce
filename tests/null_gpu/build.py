"""Builds the null CUDA runtime for the installed PyTorch.

The runtime replaces every function of CUDA that PyTorch's libraries ask for. `runtime/cudart.cpp` and
`runtime/libraries.c` define those that must do something; the others are generated here from the list of symbols:
functions that create a handle return one, functions that compute are counted as kernels, and the rest do nothing.

    python tests/null_gpu/build.py OUT
    LD_PRELOAD=OUT/libnullcuda.so LD_LIBRARY_PATH=OUT python ...
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
SOURCES = HERE / "runtime"
TOOLS = ("cc", "c++", "nm")
LIBRARY = "libnullcuda.so"
OPENED = ("libcuda.so.1", "libnvidia-ml.so.1")  # PyTorch opens these by name
PREFIXES = ("cuda", "cublas", "cudnn", "cusparse", "cusolver", "cufft")
DRIVER = re.compile(r"cu[A-Z]")
# Computing functions: their names contain none of these words.
NOT_COMPUTING = re.compile(
    r"Create|Destroy|Set|Get|Init|Config|Check|Query|Finalize|Restore|Version|Size|Plan|Descr|Attribute|Workspace"
)
# Looked up with dlopen, so that it is not among the undefined symbols.
DRIVER_FUNCTIONS = [
    "cuCtxSetCurrent",
    "cuDeviceGet",
    "cuDeviceGetAttribute",
    "cuDevicePrimaryCtxRetain",
    "cuFuncGetAttribute",
    "cuFuncSetAttribute",
    "cuFuncSetCacheConfig",
    "cuLaunchCooperativeKernel",
    "cuLaunchKernel",
    "cuLinkAddData_v2",
    "cuLinkComplete",
    "cuLinkCreate_v2",
    "cuModuleGetFunction",
    "cuModuleLoad",
    "cuModuleLoadData",
    "cuModuleLoadDataEx",
    "cuModuleUnload",
    "cuOccupancyMaxActiveBlocksPerMultiprocessor",
    "cuPointerGetAttribute",
    "cuTensorMapEncodeTiled",
    "cuMemSetAccess",
]
KEPT = ("cudnnGetVersion", "cudnnGetCudartVersion", "cudnnGetProperty")  # answered by the real library
PUSHED = ("__cudaPushCallConfiguration", "__cudaPopCallConfiguration")  # likewise: they keep a stack on the host


def missing() -> str:
    """Why the runtime cannot be built here; empty if it can."""
    import torch

    if torch.version.cuda is None:
        return f"PyTorch {torch.__version__} is built without CUDA"
    absent = [tool for tool in TOOLS if shutil.which(tool) is None]
    if absent:
        return f"{', '.join(absent)} is not installed"
    if _headers() is None:
        return "the headers of CUDA are not installed"
    return ""


def build(out: Path) -> dict[str, str]:
    """Build the runtime into a folder; return the environment variables of a process that uses it."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "generated.c").write_text(_generated())
    flags = ["-O1", "-w", "-fPIC"]
    for source in (SOURCES / "libraries.c", out / "generated.c"):
        subprocess.run(["cc", *flags, "-c", str(source), "-o", str(out / f"{source.stem}.o")], check=True)
    objects = [str(out / "libraries.o"), str(out / "generated.o")]
    command = ["c++", "-std=c++17", *flags, "-shared", f"-I{_headers()}", "-o", str(out / LIBRARY)]
    subprocess.run([*command, str(SOURCES / "cudart.cpp"), *objects, "-ldl"], check=True)
    for opened in OPENED:
        (out / opened).unlink(missing_ok=True)
        (out / opened).symlink_to(LIBRARY)
    return {"LD_PRELOAD": str(out / LIBRARY), "LD_LIBRARY_PATH": str(out)}


def _generated() -> str:
    """Return C code that defines the functions that the sources do not."""
    text = "".join(source.read_text() for source in SOURCES.iterdir())
    defined = {*re.findall(r"\b((?:__)?cu\w+)\s*\(", text), *KEPT, *PUSHED}
    wanted = {name for name in _undefined() if name.startswith(PREFIXES) or DRIVER.match(name)}
    lines = ["#include <stdlib.h>", "extern void nullcuda_count(const char*);"]
    lines += [_definition(name) for name in sorted({*wanted, *DRIVER_FUNCTIONS} - defined)]
    return "\n".join(lines) + "\n"


def _definition(name: str) -> str:
    if re.match(r"(cublas|cudnn|cusparse|cusolver).*Create", name):
        # Most take the address of the handle first, cuDNN's backend descriptors second.
        arguments = "int kind, void** made" if name == "cudnnBackendCreateDescriptor" else "void** made"
        body = "*made = calloc(1, 256); return 0;"
    elif name == "cudnnBackendDestroyDescriptor" or name.startswith("cuda") or NOT_COMPUTING.search(name):
        arguments, body = "", "return 0;"
    elif name.startswith(("cublas", "cudnn", "cusparse", "cusolver", "cufft")):
        arguments, body = "", f'nullcuda_count("KERNEL {name}"); return 0;'
    else:
        arguments, body = "", "return 0;"
    return f'__attribute__((visibility("default"))) int {name}({arguments}) {{ {body} }}'


def _undefined() -> set[str]:
    """Return the symbols that PyTorch's libraries take from other libraries."""
    import torch

    names: set[str] = set()
    libraries = Path(torch.__file__).parent / "lib"
    for library in ("libtorch_cuda.so", "libc10_cuda.so", "libtorch_python.so", "libcaffe2_nvrtc.so"):
        listed = subprocess.run(
            ["nm", "-D", "--undefined-only", str(libraries / library)], capture_output=True, text=True, check=True
        )
        names |= {line.split()[-1].split("@")[0] for line in listed.stdout.splitlines()}
    return names


def _headers() -> Path | None:
    """Return the folder of cuda_runtime_api.h: that of the nvidia packages if it is complete, or the copy in Triton."""
    import torch

    packages = Path(torch.__file__).parents[1]
    places = [*packages.glob("nvidia/*/include"), packages / "triton" / "backends" / "nvidia" / "include"]
    return next((place for place in places if (place / "crt" / "host_config.h").is_file()), None)


if __name__ == "__main__":
    print(" ".join(f"{name}={value}" for name, value in build(Path(sys.argv[1])).items()))  # noqa: T201
