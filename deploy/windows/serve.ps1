# Starts OneSeek on Windows, as `make serve` does elsewhere:
#   deploy\windows\serve.ps1 --port 8011
#   deploy\windows\serve.ps1 --device directml --quantize int4
# The first run makes .venv and installs the light serving set; later runs start at once. What it installs
# computes on the CPU and on DirectML; --device webgpu puts the one that computes on WebGPU in its place.
# docs/windows.md says what each needs and what has been verified.
# Where scripts are blocked: powershell -ExecutionPolicy Bypass -File deploy\windows\serve.ps1

$ErrorActionPreference = 'Stop'
$PSNativeCommandUseErrorActionPreference = $false
$root = Split-Path -Parent (Split-Path -Parent $PSScriptRoot)
$venv = Join-Path $root '.venv'
$python = Join-Path $venv 'Scripts\python.exe'
$stamp = Join-Path $venv '.serve'
$flavourFile = Join-Path $venv '.onnxruntime'
$flavours = @{
    directml = 'onnxruntime-windowsml==1.30.0.202609102321'
    webgpu = 'onnxruntime-webgpu==1.27.0'
}
$everyFlavour = @('onnxruntime', 'onnxruntime-directml', 'onnxruntime-gpu', 'onnxruntime-webgpu', 'onnxruntime-windowsml')
$project = Join-Path $root 'pyproject.toml'

function Say([string] $text) { Write-Host "oneseek: $text" }

function Stop-With([string] $text) {
    [Console]::Error.WriteLine("oneseek: $text")
    exit 1
}

# What a program writes to its standard error is no error of this script's; Windows PowerShell takes it for
# one where the output is redirected, as in serve.ps1 *> log.txt.
function Invoke-Pip {
    $ErrorActionPreference = 'Continue'
    & $python -m pip --disable-pip-version-check --no-input @args
}

# The value of --device among the arguments, in either way of writing it; empty where it is not there.
function Get-Device([string[]] $words) {
    $device = [string] $env:ONESEEK_DEVICE
    for ($i = 0; $i -lt $words.Count; $i++) {
        if ($words[$i] -eq '--device' -and $i + 1 -lt $words.Count) { $device = $words[$i + 1] }
        if ($words[$i] -like '--device=*') { $device = $words[$i].Substring('--device='.Length) }
    }
    return $device
}

# A command with its first arguments that is a 64-bit Python 3.11 or later; $null where there is none.
function Find-Python {
    $candidates = @(@('py', '-3.13'), @('py', '-3.12'), @('py', '-3.11'), @('py', '-3'), @('python'))
    foreach ($candidate in $candidates) {
        if (-not (Get-Command $candidate[0] -ErrorAction SilentlyContinue)) { continue }
        $rest = @($candidate | Select-Object -Skip 1)
        try {
            & $candidate[0] @rest -c 'import sys; sys.exit(sys.version_info < (3, 11) or sys.maxsize < 2**32)' 2>&1 | Out-Null
            if ($LASTEXITCODE -eq 0) { return , $candidate }
        } catch { continue }
    }
    return $null
}

if (-not (Test-Path $python)) {
    $found = Find-Python
    if ($null -eq $found) {
        Stop-With 'no 64-bit Python 3.11 or later found; install one from https://www.python.org or with: winget install Python.Python.3.13'
    }
    $rest = @($found | Select-Object -Skip 1)
    Say "making .venv with $($found -join ' ')"
    & $found[0] @rest -m venv $venv
    if ($LASTEXITCODE -ne 0) { Stop-With 'could not make a virtual environment' }
}

if (-not (Test-Path $stamp) -or (Get-Item $project).LastWriteTimeUtc -gt (Get-Item $stamp).LastWriteTimeUtc) {
    Say 'installing the serving set (no torch)'
    Invoke-Pip install --quiet --editable $root
    if ($LASTEXITCODE -ne 0) { Stop-With 'could not install the serving set; the lines above say why' }
    New-Item -ItemType File -Force -Path $stamp | Out-Null
    # The install above brings back what the exchange below may have removed.
    Remove-Item -Force -ErrorAction SilentlyContinue $flavourFile
}

# All flavours of ONNX Runtime share one folder, so that the others go before one comes.
$wanted = if ((Get-Device $args) -eq 'webgpu') { 'webgpu' } else { 'directml' }
$have = if (Test-Path $flavourFile) { (Get-Content $flavourFile -TotalCount 1) } else { '' }
if ($have -ne $flavours[$wanted]) {
    Say "installing $($flavours[$wanted])"
    # Until the new one is there, none is: an exchange that breaks off is begun again.
    Remove-Item -Force -ErrorAction SilentlyContinue $flavourFile
    Invoke-Pip uninstall --quiet --yes @everyFlavour
    if ($LASTEXITCODE -ne 0) { Stop-With 'could not remove ONNX Runtime; stop what uses it and try again' }
    Invoke-Pip install --quiet $flavours[$wanted]
    if ($LASTEXITCODE -ne 0) { Stop-With 'could not install ONNX Runtime; the lines above say why' }
    Set-Content -Path $flavourFile -Value $flavours[$wanted] -Encoding Ascii
}

Say 'starting; press Ctrl-C to stop'
Push-Location $root
$ErrorActionPreference = 'Continue'
try {
    & $python -m server serve @args
    $code = $LASTEXITCODE
} finally {
    Pop-Location
}
exit $code
