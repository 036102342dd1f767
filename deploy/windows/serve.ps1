# Starts OneSeek on Windows, as `make serve` does elsewhere:
#   deploy\windows\serve.ps1 --port 8011
#   deploy\windows\serve.ps1 --device directml --quantize int4
# The first run makes .venv and installs the light serving set; later runs start at once. What it installs
# computes on the CPU and on DirectML; device webgpu (flag, variable or oneseek.yaml) puts WebGPU's in its place.
# docs/windows.md says what each needs and what has been verified.
# Where scripts are blocked: powershell -ExecutionPolicy Bypass -File deploy\windows\serve.ps1

$ErrorActionPreference = 'Stop'
$PSNativeCommandUseErrorActionPreference = $false
$root = Split-Path -Parent (Split-Path -Parent $PSScriptRoot)
$venv = Join-Path $root '.venv'
$python = Join-Path $venv 'Scripts\python.exe'
# Written when the environment is whole, when the serving set is in it, and with the flavour that is.
$made = Join-Path $venv '.made'
$stamp = Join-Path $venv '.serve'
$flavourFile = Join-Path $venv '.onnxruntime'
$flavours = @{
    directml = 'onnxruntime-windowsml==1.30.0.202609102321'
    webgpu = 'onnxruntime-webgpu==1.27.0'
}
$everyFlavour = @('onnxruntime', 'onnxruntime-directml', 'onnxruntime-gpu', 'onnxruntime-webgpu', 'onnxruntime-windowsml')
$project = Join-Path $root 'pyproject.toml'
# A prompt makes a list of a,b and a number of 8011; the server wants each as one text.
$words = @(foreach ($word in $args) { @($word) -join ',' })

function Say([string] $text) { Write-Host "oneseek: $text" }

function Stop-With([string] $text) {
    [Console]::Error.WriteLine("oneseek: $text")
    exit 1
}

# What a program writes to its standard error is no error of this script's; Windows PowerShell takes it for
# one where the output is redirected, as in serve.ps1 *> log.txt. So every program is run by this function.
function Invoke-Program {
    $ErrorActionPreference = 'Continue'
    $rest = @($args | Select-Object -Skip 1)
    & $args[0] @rest
}

function Invoke-Pip { Invoke-Program $python -m pip --disable-pip-version-check --no-input @args }

# The device that the flags, the environment or oneseek.yaml name; empty if the server refuses the settings.
function Get-Device {
    $ErrorActionPreference = 'Continue'
    $shown = & $python -m server config @words 2>$null
    foreach ($line in $shown) {
        if ($line -match '^device\s+(\S+)') { return $Matches[1] }
    }
    return ''
}

# A command with its first arguments that is a 64-bit Python 3.11 or later; $null where there is none.
function Find-Python {
    $ErrorActionPreference = 'Continue'
    # Else asking `py` for a version that is not there installs it.
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
        # What a run that broke off has left is removed.
        Invoke-Program @found -m venv --clear $venv
        if ($LASTEXITCODE -ne 0) { Stop-With 'could not make a virtual environment' }
        Set-Content -LiteralPath $made -Value ''
    }

    if (-not (Test-Path -LiteralPath $stamp) -or (Get-Item -LiteralPath $project).LastWriteTimeUtc -gt (Get-Item -LiteralPath $stamp).LastWriteTimeUtc) {
        Say 'installing the serving set (no torch)'
        # By a dot: a path with brackets would name extras.
        Invoke-Pip install --quiet --editable .
        if ($LASTEXITCODE -ne 0) { Stop-With 'could not install the serving set; the lines above say why' }
        # It brought the flavour for DirectML, beside another one if that had taken its place.
        $had = if (Test-Path -LiteralPath $flavourFile) { Get-Content -LiteralPath $flavourFile -TotalCount 1 } else { $flavours['directml'] }
        if ($had -eq $flavours['directml']) {
            Set-Content -LiteralPath $flavourFile -Value $had -Encoding Ascii
        } else {
            Remove-Item -Force -LiteralPath $flavourFile
        }
        Set-Content -LiteralPath $stamp -Value ''
    }

    # All flavours of ONNX Runtime share one folder, so that the others go before one comes.
    $wanted = if ((Get-Device) -eq 'webgpu') { 'webgpu' } else { 'directml' }
    $have = if (Test-Path -LiteralPath $flavourFile) { Get-Content -LiteralPath $flavourFile -TotalCount 1 } else { '' }
    if ($have -ne $flavours[$wanted]) {
        Say "installing $($flavours[$wanted])"
        # Until the new one is there, none is: an exchange that breaks off is begun again.
        Set-Content -LiteralPath $flavourFile -Value 'none' -Encoding Ascii
        Invoke-Pip uninstall --quiet --yes @everyFlavour
        if ($LASTEXITCODE -ne 0) { Stop-With 'could not remove ONNX Runtime; stop what uses it and try again' }
        Invoke-Pip install --quiet $flavours[$wanted]
        if ($LASTEXITCODE -ne 0) { Stop-With 'could not install ONNX Runtime; the lines above say why' }
        Set-Content -LiteralPath $flavourFile -Value $flavours[$wanted] -Encoding Ascii
    }

    Say 'starting; press Ctrl-C to stop'
    Invoke-Program $python -m server serve @words
    $code = $LASTEXITCODE
} finally {
    Pop-Location
}
exit $code
