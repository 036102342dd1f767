# Starts OneSeek on Windows, as `make serve` does elsewhere:
#   deploy\windows\serve.ps1 --port 8011
# The first run makes .venv and installs the light serving set; later runs start at once.
# Where scripts are blocked: powershell -ExecutionPolicy Bypass -File deploy\windows\serve.ps1

$ErrorActionPreference = 'Stop'
$root = Split-Path -Parent (Split-Path -Parent $PSScriptRoot)
$venv = Join-Path $root '.venv'
$python = Join-Path $venv 'Scripts\python.exe'
$stamp = Join-Path $venv '.serve'
$project = Join-Path $root 'pyproject.toml'

function Say([string] $text) { Write-Host "oneseek: $text" }

function Stop-With([string] $text) {
    [Console]::Error.WriteLine("oneseek: $text")
    exit 1
}

# A command with its first arguments that is Python 3.11 or later; $null where there is none.
function Find-Python {
    $candidates = @(@('py', '-3.13'), @('py', '-3.12'), @('py', '-3.11'), @('py', '-3'), @('python'))
    foreach ($candidate in $candidates) {
        if (-not (Get-Command $candidate[0] -ErrorAction SilentlyContinue)) { continue }
        $rest = @($candidate | Select-Object -Skip 1)
        try {
            & $candidate[0] @rest -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>&1 | Out-Null
            if ($LASTEXITCODE -eq 0) { return , $candidate }
        } catch { continue }
    }
    return $null
}

if (-not (Test-Path $python)) {
    $found = Find-Python
    if ($null -eq $found) {
        Stop-With 'no Python 3.11 or later found; install one from https://www.python.org or with: winget install Python.Python.3.13'
    }
    $rest = @($found | Select-Object -Skip 1)
    Say "making .venv with $($found -join ' ')"
    & $found[0] @rest -m venv $venv
    if ($LASTEXITCODE -ne 0) { Stop-With 'could not make a virtual environment' }
}

if (-not (Test-Path $stamp) -or (Get-Item $project).LastWriteTimeUtc -gt (Get-Item $stamp).LastWriteTimeUtc) {
    Say 'installing the serving set (no torch)'
    & $python -m pip --disable-pip-version-check --no-input install --quiet --editable $root
    if ($LASTEXITCODE -ne 0) { Stop-With 'could not install the serving set; the lines above say why' }
    New-Item -ItemType File -Force -Path $stamp | Out-Null
}

Say 'starting; press Ctrl-C to stop'
Push-Location $root
try {
    & $python -m server serve @args
    $code = $LASTEXITCODE
} finally {
    Pop-Location
}
exit $code
