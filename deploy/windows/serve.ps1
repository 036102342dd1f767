# Starts OneSeek on Windows, as `make serve` does elsewhere:
#   deploy\windows\serve.ps1 --port 8011
#   deploy\windows\serve.ps1 --device directml --quantize int4
# The first run makes .venv and installs the packages for serving; later runs start at once. The ONNX Runtime
# that it installs runs on the CPU and on DirectML. If the device is webgpu (flag, variable or oneseek.yaml),
# ONNX Runtime for WebGPU replaces it. If the device is windowsml, the catalogue of Windows ML is added.
# docs/windows.md says what each device needs and what has been verified.
# If Windows blocks scripts, run: powershell -ExecutionPolicy Bypass -File deploy\windows\serve.ps1

$ErrorActionPreference = 'Stop'
$PSNativeCommandUseErrorActionPreference = $false
$root = Split-Path -Parent (Split-Path -Parent $PSScriptRoot)
$venv = Join-Path $root '.venv'
$python = Join-Path $venv 'Scripts\python.exe'
# .made marks a complete environment, .serve installed packages, and .onnxruntime names the installed flavour
# (package) of ONNX Runtime.
$made = Join-Path $venv '.made'
$stamp = Join-Path $venv '.serve'
$flavourFile = Join-Path $venv '.onnxruntime'
$flavours = @{
    directml = 'onnxruntime-windowsml==1.28.3.202610130701'
    webgpu = 'onnxruntime-webgpu==1.27.0'
}
$catalogue = 'windowsml==2.5.96'
$catalogueFile = Join-Path $venv '.windowsml'
$everyFlavour = @('onnxruntime', 'onnxruntime-directml', 'onnxruntime-gpu', 'onnxruntime-webgpu', 'onnxruntime-windowsml')
$project = Join-Path $root 'pyproject.toml'
# PowerShell parses a,b as a list and 8011 as a number; the server needs each argument as one string.
$words = @(foreach ($word in $args) { @($word) -join ',' })

function Say([string] $text) { Write-Host "oneseek: $text" }

function Stop-With([string] $text) {
    [Console]::Error.WriteLine("oneseek: $text")
    exit 1
}

# Runs a program so that its output on standard error does not end this script. Windows PowerShell treats it as
# an error if the output is redirected, as in serve.ps1 *> log.txt.
function Invoke-Program {
    $ErrorActionPreference = 'Continue'
    $rest = @($args | Select-Object -Skip 1)
    & $args[0] @rest
}

function Invoke-Pip { Invoke-Program $python -m pip --disable-pip-version-check --no-input @args }

# Returns the device that the flags, the environment or oneseek.yaml name; empty if the server refuses the settings.
function Get-Device {
    $ErrorActionPreference = 'Continue'
    $shown = & $python -m server config @words 2>$null
    foreach ($line in $shown) {
        if ($line -match '^device\s+(\S+)') { return $Matches[1] }
    }
    return ''
}

# Returns the command, with its first arguments, of a 64-bit Python 3.11 or later; $null if there is none.
function Find-Python {
    $ErrorActionPreference = 'Continue'
    # Without this, asking `py` for a missing version would install it.
    $before = $env:PYTHON_MANAGER_AUTOMATIC_INSTALL
    $env:PYTHON_MANAGER_AUTOMATIC_INSTALL = 'false'
    $candidates = @(@('py', '-3.13'), @('py', '-3.12'), @('py', '-3.11'), @('py', '-3'), @('python'))
    $answer = $null
    foreach ($candidate in $candidates) {
        if ($null -ne $answer -or -not (Get-Command $candidate[0] -ErrorAction SilentlyContinue)) { continue }
        $rest = @($candidate | Select-Object -Skip 1)
        & $candidate[0] @rest -c 'import sys; sys.exit(sys.version_info < (3, 11) or sys.maxsize < 2**32)' 2>$null | Out-Null
        if ($LASTEXITCODE -eq 0) { $answer = $candidate }
    }
    $env:PYTHON_MANAGER_AUTOMATIC_INSTALL = $before
    return , $answer
}

Push-Location -LiteralPath $root
try {
    $whole = (Test-Path -LiteralPath $made) -or (Test-Path -LiteralPath $stamp)
    if (-not $whole -or -not (Test-Path -LiteralPath $python)) {
        $found = Find-Python
        if ($null -eq $found) {
            Stop-With 'no 64-bit Python 3.11 or later found; install one from https://www.python.org or with: winget install Python.Python.3.13'
        }
        Say "making .venv with $($found -join ' ')"
        # --clear removes what an interrupted run has left.
        Invoke-Program @found -m venv --clear $venv
        if ($LASTEXITCODE -ne 0) { Stop-With 'could not create the virtual environment .venv; the lines above give the reason' }
        Set-Content -LiteralPath $made -Value ''
    }

    if (-not (Test-Path -LiteralPath $stamp) -or (Get-Item -LiteralPath $project).LastWriteTimeUtc -gt (Get-Item -LiteralPath $stamp).LastWriteTimeUtc) {
        Say 'installing the packages for serving (without torch)'
        # Install ".", because pip would read brackets in a path as extras.
        Invoke-Pip install --quiet --editable .
        if ($LASTEXITCODE -ne 0) { Stop-With 'could not install the packages for serving; the lines above give the reason' }
        # pip has just installed the flavour for DirectML. If another flavour was there, both are now installed.
        $had = if (Test-Path -LiteralPath $flavourFile) { Get-Content -LiteralPath $flavourFile -TotalCount 1 } else { $flavours['directml'] }
        if ($had -eq $flavours['directml']) {
            Set-Content -LiteralPath $flavourFile -Value $had -Encoding Ascii
        } else {
            Remove-Item -Force -LiteralPath $flavourFile
        }
        Set-Content -LiteralPath $stamp -Value ''
    }

    # All flavours of ONNX Runtime share one folder, so remove the others before one is installed.
    $device = Get-Device
    $wanted = if ($device -eq 'webgpu') { 'webgpu' } else { 'directml' }
    $have = if (Test-Path -LiteralPath $flavourFile) { Get-Content -LiteralPath $flavourFile -TotalCount 1 } else { '' }
    if ($have -ne $flavours[$wanted]) {
        Say "installing $($flavours[$wanted])"
        # Record that no flavour is installed, so that the next run repeats an interrupted exchange.
        Set-Content -LiteralPath $flavourFile -Value 'none' -Encoding Ascii
        Invoke-Pip uninstall --quiet --yes @everyFlavour
        if ($LASTEXITCODE -ne 0) { Stop-With 'could not remove ONNX Runtime; stop the programs that use it, such as a running server, and try again' }
        Invoke-Pip install --quiet $flavours[$wanted]
        if ($LASTEXITCODE -ne 0) { Stop-With 'could not install ONNX Runtime; the lines above give the reason' }
        Set-Content -LiteralPath $flavourFile -Value $flavours[$wanted] -Encoding Ascii
    }

    $listed = if (Test-Path -LiteralPath $catalogueFile) { Get-Content -LiteralPath $catalogueFile -TotalCount 1 } else { '' }
    if ($device -eq 'windowsml' -and $listed -ne $catalogue) {
        Say "installing $catalogue"
        # Install windowsml without its dependencies, because the ONNX Runtime that it needs is already installed.
        Invoke-Pip install --quiet --no-deps $catalogue
        if ($LASTEXITCODE -ne 0) { Stop-With 'could not install the package windowsml; the lines above give the reason' }
        Set-Content -LiteralPath $catalogueFile -Value $catalogue -Encoding Ascii
    }

    Say 'starting; press Ctrl-C to stop'
    Invoke-Program $python -m server serve @words
    $code = $LASTEXITCODE
} finally {
    Pop-Location
}
exit $code
