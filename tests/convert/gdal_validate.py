"""Run GDAL's own validate_cloud_optimized_geotiff.py on the libgdal inside rasterio's wheel.

The script (in the pip package gdal-utils) imports ``osgeo.gdal``, whose package exists as source only.
Here the few calls that the script makes are bound to the same library by ctypes, so that the script
runs as it is. Run as ``python gdal_validate.py SCRIPT FILE``: exit code 0 when the file is valid.
"""

# ruff: noqa: N802  (the method names are those of osgeo.gdal)
from __future__ import annotations

import ctypes
import os
import runpy
import sys
import types
from pathlib import Path
from typing import Any

import rasterio

_HOME = Path(rasterio.__file__).parent
os.environ.setdefault("GDAL_DATA", str(_HOME / "gdal_data"))
os.environ.setdefault("PROJ_DATA", str(_HOME / "proj_data"))
(_LIBRARY,) = (_HOME.parent / "rasterio.libs").glob("libgdal-*")
_gdal = ctypes.CDLL(str(_LIBRARY))


def _call(name: str, result: Any, *arguments: Any) -> Any:
    function = getattr(_gdal, name)
    function.restype = result
    kinds = {str: ctypes.c_char_p, int: ctypes.c_int}
    function.argtypes = [kinds.get(type(value), ctypes.c_void_p) for value in arguments]
    answer = function(*(value.encode() if isinstance(value, str) else value for value in arguments))
    return answer.decode() if isinstance(answer, bytes) else answer


_POINTER, _TEXT, _INT = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int


class Band:
    def __init__(self, handle: int) -> None:
        self.handle = ctypes.c_void_p(handle)
        self.XSize = _call("GDALGetRasterBandXSize", _INT, self.handle)
        self.YSize = _call("GDALGetRasterBandYSize", _INT, self.handle)

    def GetBlockSize(self) -> list[int]:
        x, y = ctypes.c_int(), ctypes.c_int()
        _call("GDALGetBlockSize", None, self.handle, ctypes.byref(x), ctypes.byref(y))
        return [x.value, y.value]

    def GetMetadataItem(self, name: str, domain: str) -> str | None:
        answer: str | None = _call("GDALGetMetadataItem", _TEXT, self.handle, name, domain)
        return answer

    def GetBand(self) -> int:
        return int(_call("GDALGetBandNumber", _INT, self.handle))

    def GetDataset(self) -> Dataset | None:
        handle = _call("GDALGetBandDataset", _POINTER, self.handle)
        return Dataset(handle) if handle else None

    def GetOverviewCount(self) -> int:
        return int(_call("GDALGetOverviewCount", _INT, self.handle))

    def GetOverview(self, index: int) -> Band:
        return Band(_call("GDALGetOverview", _POINTER, self.handle, index))

    def GetMaskFlags(self) -> int:
        return int(_call("GDALGetMaskFlags", _INT, self.handle))

    def GetMaskBand(self) -> Band:
        return Band(_call("GDALGetMaskBand", _POINTER, self.handle))


class Driver:
    def __init__(self, handle: int) -> None:
        self.ShortName = _call("GDALGetDriverShortName", _TEXT, ctypes.c_void_p(handle))


class Dataset:
    def __init__(self, handle: int) -> None:
        self.handle = ctypes.c_void_p(handle)
        self.RasterXSize = _call("GDALGetRasterXSize", _INT, self.handle)
        self.RasterYSize = _call("GDALGetRasterYSize", _INT, self.handle)
        self.RasterCount = _call("GDALGetRasterCount", _INT, self.handle)

    def GetDriver(self) -> Driver:
        return Driver(_call("GDALGetDatasetDriver", _POINTER, self.handle))

    def GetDescription(self) -> str:
        return str(_call("GDALGetDescription", _TEXT, self.handle))

    def GetRasterBand(self, number: int) -> Band:
        return Band(_call("GDALGetRasterBand", _POINTER, self.handle, number))

    def GetMetadataItem(self, name: str, domain: str) -> str | None:
        answer: str | None = _call("GDALGetMetadataItem", _TEXT, self.handle, name, domain)
        return answer

    def GetFileList(self) -> list[str]:
        names = _call("GDALGetFileList", ctypes.POINTER(ctypes.c_char_p), self.handle)
        found: list[str] = []
        while names and names[len(found)]:
            found.append(names[len(found)].decode())
        return found


def _open(name: str) -> Dataset | None:
    handle = _call("GDALOpen", _POINTER, name, 0)
    return Dataset(handle) if handle else None


def _module() -> types.ModuleType:
    gdal: Any = types.ModuleType("osgeo.gdal")
    gdal.Open = _open
    gdal.GMF_PER_DATASET = 2
    gdal.VersionInfo = lambda what="VERSION_NUM": _call("GDALVersionInfo", _TEXT, what)
    gdal.UseExceptions = gdal.PushErrorHandler = gdal.PopErrorHandler = lambda *_: None
    gdal.GetLastErrorMsg = lambda: _call("CPLGetLastErrorMsg", _TEXT)
    gdal.GeneralCmdLineProcessor = lambda argv: argv
    gdal.VSIFOpenL = lambda name, mode: Path(name).open(mode)  # noqa: SIM115
    gdal.VSIFSeekL = lambda file, offset, whence: file.seek(offset, whence)
    gdal.VSIFReadL = lambda size, count, file: file.read(size * count)
    gdal.VSIFCloseL = lambda file: file.close()
    gdal.VSIStatL = lambda name: types.SimpleNamespace(size=Path(name).stat().st_size)
    return gdal  # type: ignore[no-any-return]


def main() -> None:
    _gdal.GDALAllRegister()
    script, file = sys.argv[1:]
    package: Any = types.ModuleType("osgeo")
    package.gdal = _module()
    sys.modules["osgeo"], sys.modules["osgeo.gdal"] = package, package.gdal
    sys.argv = [script, file, "--full-check=yes"]
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main()
