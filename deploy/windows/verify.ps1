# Tries OneSeek on this machine and writes a report that can be pasted into an issue:
#   deploy\windows\verify.ps1
#   deploy\windows\verify.ps1 directml int4
# The first argument is the device (cpu, directml, windowsml, webgpu or auto; default: cpu), the second the weight
# format (none, int8 or int4; default: none). The script starts a server on a free port of the loopback, asks it in
# English and in Swedish, and stops it. It prints the report and saves it in verify-report.md, without the names of
# users and their folders.
# Run deploy\windows\serve.ps1 once before: it makes .venv, which this script uses and does not change.

$ErrorActionPreference = 'Stop'
$PSNativeCommandUseErrorActionPreference = $false
$root = Split-Path -Parent (Split-Path -Parent $PSScriptRoot)
$python = Join-Path $root '.venv\Scripts\python.exe'
$report = Join-Path $root 'verify-report.md'
$log = Join-Path $root 'verify-server.log'
$device = if ($args.Count -gt 0) { [string] $args[0] } else { 'cpu' }
$weights = if ($args.Count -gt 1) { [string] $args[1] } else { 'none' }
$startSeconds = 600
$lines = New-Object System.Collections.Generic.List[string]
$script:failed = 0

function Add-Line([string] $text) {
    $shown = $text.Replace($root, '<project>')
    foreach ($private in @($env:USERPROFILE, $env:USERNAME, $env:COMPUTERNAME)) {
        if ($private) { $shown = $shown.Replace($private, '<private>') }
    }
    $lines.Add($shown)
    Write-Host $shown
}

function Add-Fact([string] $name, [string] $value) { Add-Line "| $name | $($value.Trim()) |" }

function Add-Check([string] $name, [bool] $holds, [string] $detail) {
    $verdict = 'ok'
    if (-not $holds) {
        $verdict = 'FAILED'
        $script:failed += 1
    }
    Add-Line "| $name | $verdict | $detail |"
}

# Returns the first line that a program writes, or the reason why there is none. Its output on standard error does
# not end this script.
function Get-FirstLine {
    $ErrorActionPreference = 'Continue'
    $rest = @($args | Select-Object -Skip 1)
    $shown = & $args[0] @rest 2>$null
    if ($LASTEXITCODE -ne 0) { return "exit status $LASTEXITCODE" }
    return [string] ($shown | Select-Object -First 1)
}

function Get-AllText {
    $ErrorActionPreference = 'Continue'
    $rest = @($args | Select-Object -Skip 1)
    return [string]::Join("`n", @(& $args[0] @rest 2>$null))
}

function Add-Machine {
    $system = Get-CimInstance -ClassName Win32_OperatingSystem
    $cpu = Get-CimInstance -ClassName Win32_Processor | Select-Object -First 1
    Add-Line '## Machine'
    Add-Line '| what | value |'
    Add-Line '|---|---|'
    Add-Fact 'Windows' "$($system.Caption) $($system.Version)"
    Add-Fact 'PowerShell' ([string] $PSVersionTable.PSVersion)
    Add-Fact 'processor' "$($cpu.Name), $($cpu.NumberOfLogicalProcessors) threads"
    Add-Fact 'memory' "$([math]::Round($system.TotalVisibleMemorySize / 1048576, 1)) GiB"
    foreach ($card in Get-CimInstance -ClassName Win32_VideoController) {
        Add-Fact 'card' "$($card.Name), driver $($card.DriverVersion)"
    }
    Add-Fact 'Python' (Get-FirstLine $python -V)
    Add-Fact 'OneSeek' (Get-FirstLine $python -m server --version)
    foreach ($line in (Get-AllText $python -m pip list --format freeze).Split("`n")) {
        if ($line -like 'onnxruntime*' -or $line -like 'windowsml*') { Add-Fact 'ONNX Runtime' $line }
    }
    Add-Line ''
    Add-Line '```'
    Add-Line (Get-AllText $python -m server devices --quantize $weights)
    Add-Line '```'
}

# Waits until the server's log names its address, and returns the address.
function Wait-ForServer($server) {
    $end = (Get-Date).AddSeconds($startSeconds)
    while ((Get-Date) -lt $end -and -not $server.HasExited) {
        foreach ($line in @(Get-Content -LiteralPath $log -ErrorAction SilentlyContinue)) {
            if ($line -match 'ready on (http://\S+)') { return $Matches[1] }
        }
        Start-Sleep -Milliseconds 200
    }
    return ''
}

function Send-Question([string] $url, [string] $model, [string] $text) {
    $body = @{ model = $model; max_tokens = 24; temperature = 0; messages = @(@{ role = 'user'; content = $text }) }
    $json = ConvertTo-Json -Depth 5 -InputObject $body
    $bytes = [System.Text.Encoding]::UTF8.GetBytes($json)
    $began = Get-Date
    $answer = Invoke-RestMethod -Method Post -Uri "$url/v1/chat/completions" -ContentType 'application/json' -Body $bytes -TimeoutSec 300
    $seconds = ((Get-Date) - $began).TotalSeconds
    $tokens = $answer.usage.completion_tokens
    $rate = [math]::Round($tokens / [math]::Max($seconds, 0.001), 1)
    Add-Check "answer of $model" ($tokens -gt 0) "$tokens tokens, $rate a second"
}

function Add-Checks([string] $url) {
    $health = Invoke-RestMethod -Uri "$url/health" -TimeoutSec 60
    Add-Check 'health' ($null -ne $health) (ConvertTo-Json -Compress -Depth 4 -InputObject $health)
    foreach ($model in (Invoke-RestMethod -Uri "$url/v1/models" -TimeoutSec 60).data) {
        Send-Question $url $model.id 'Who are you, and which language do you speak?'
    }
}

Push-Location -LiteralPath $root
try {
    if (-not (Test-Path -LiteralPath $python)) {
        [Console]::Error.WriteLine('oneseek: there is no .venv yet; run deploy\windows\serve.ps1 once')
        exit 1
    }
    Add-Line "# OneSeek on Windows: device $device, weights $weights"
    Add-Machine
    Add-Line '## Server'
    Add-Line '| check | verdict | detail |'
    Add-Line '|---|---|---|'
    $words = @('-m', 'server', 'serve', '--host', '127.0.0.1', '--port', '0', '--device', $device, '--quantize', $weights)
    $server = Start-Process -FilePath $python -ArgumentList $words -PassThru -NoNewWindow -RedirectStandardError $log
    try {
        $url = Wait-ForServer $server
        Add-Check 'start' ($url -ne '') "within $startSeconds seconds"
        if ($url -ne '') { Add-Checks $url }
    } catch {
        Add-Check 'questions' $false ([string] $_)
    } finally {
        if (-not $server.HasExited) { Stop-Process -Id $server.Id -Force }
    }
    Add-Line ''
    Add-Line '```'
    foreach ($line in @(Get-Content -LiteralPath $log -ErrorAction SilentlyContinue | Select-Object -Last 40)) { Add-Line $line }
    Add-Line '```'
    Set-Content -LiteralPath $report -Value $lines -Encoding UTF8
    Write-Host "oneseek: the report is in verify-report.md; number of failed checks: $($script:failed)"
} finally {
    Pop-Location
}
exit [math]::Min($script:failed, 1)
