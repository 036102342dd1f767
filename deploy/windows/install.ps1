# Lets Windows start OneSeek at boot, for programs on this machine only. Run it in a PowerShell as administrator:
#   deploy\windows\install.ps1
#   deploy\windows\install.ps1 --port 8011 --device directml
#   deploy\windows\install.ps1 remove
# All other arguments are passed to oneseek serve, which also reads oneseek.yaml in the project's folder.
# Run deploy\windows\serve.ps1 once before, with the same device: it makes .venv.
#
# What the script does. The argument remove undoes it, with the exceptions below:
# - It creates a task "OneSeek" that starts with Windows under the account LOCAL SERVICE, and again a minute after a
#   failure.
# - It creates a firewall rule that blocks connections from other machines to the port.
# - It lets LOCAL SERVICE read the project's folder and the Python that .venv uses. remove does not change this.
# - It creates %ProgramData%\oneseek for registry, ledger, graphs and logs (oneseek.log and the log of the start before).
#   remove keeps this folder.

$ErrorActionPreference = 'Stop'
$PSNativeCommandUseErrorActionPreference = $false
$root = Split-Path -Parent (Split-Path -Parent $PSScriptRoot)
$python = Join-Path $root '.venv\Scripts\python.exe'
$place = Join-Path $env:ProgramData 'oneseek'
$logs = Join-Path $place 'logs'
$task = 'OneSeek'
$rule = 'OneSeek: this machine alone'
# PowerShell parses a,b as a list and 8011 as a number; the server needs each argument as one string.
$words = @(foreach ($word in $args) { @($word) -join ',' })

function Say([string] $text) { Write-Host "oneseek: $text" }

function Stop-With([string] $text) {
    [Console]::Error.WriteLine("oneseek: $text")
    exit 1
}

# Runs a program so that its output on standard error does not end this script.
function Invoke-Program {
    $ErrorActionPreference = 'Continue'
    $rest = @($args | Select-Object -Skip 1)
    & $args[0] @rest
}

function Test-Administrator {
    $identity = [Security.Principal.WindowsIdentity]::GetCurrent()
    $principal = New-Object Security.Principal.WindowsPrincipal $identity
    return $principal.IsInRole([Security.Principal.WindowsBuiltInRole]::Administrator)
}

function Remove-All {
    if (Get-ScheduledTask -TaskName $task -ErrorAction SilentlyContinue) {
        Stop-ScheduledTask -TaskName $task
        Unregister-ScheduledTask -TaskName $task -Confirm:$false
    }
    Remove-NetFirewallRule -DisplayName $rule -ErrorAction SilentlyContinue
}

# Returns the port that the flags, the environment or oneseek.yaml name; empty if the server refuses the settings.
function Get-Port {
    $ErrorActionPreference = 'Continue'
    foreach ($line in @(& $python -m server config @words)) {
        if ($line -match '^port\s+(\d+)') { return $Matches[1] }
    }
    return ''
}

# Returns the folder of the Python that .venv was made with; its process is the one that listens.
function Get-BaseFolder {
    $ErrorActionPreference = 'Continue'
    return [string] (& $python -c 'import sys; print(sys.base_prefix)')
}

# S-1-5-19 is the account LOCAL SERVICE, whose name depends on the language of Windows.
function Grant-ToService([string] $folder, [string] $rights) {
    Invoke-Program icacls $folder /grant ('*S-1-5-19:(OI)(CI)' + $rights) /q | Out-Null
    if ($LASTEXITCODE -ne 0) { Stop-With "the account LOCAL SERVICE could not get access to $folder; install Python for all users" }
}

# Returns the arguments for cmd, which renames the previous start's log and writes a new one.
function Get-CommandLine {
    $log = Join-Path $logs 'oneseek.log'
    $quoted = @(foreach ($word in $words) { '"' + $word + '"' }) -join ' '
    $serve = '"' + $python + '" -m server serve --host 127.0.0.1 --home "' + $place + '" ' + $quoted
    return '/d /c "move /y "' + $log + '" "' + $log + '.1" >nul 2>&1 & ' + $serve + ' 2>> "' + $log + '""'
}

function Register-Task {
    $action = New-ScheduledTaskAction -Execute 'cmd.exe' -Argument (Get-CommandLine) -WorkingDirectory $root
    $trigger = New-ScheduledTaskTrigger -AtStartup
    $account = New-ScheduledTaskPrincipal -UserId 'NT AUTHORITY\LOCAL SERVICE' -LogonType ServiceAccount
    $settings = New-ScheduledTaskSettingsSet -AllowStartIfOnBatteries -DontStopIfGoingOnBatteries -RestartCount 999 -RestartInterval (New-TimeSpan -Minutes 1) -ExecutionTimeLimit ([TimeSpan]::Zero)
    Register-ScheduledTask -TaskName $task -Action $action -Trigger $trigger -Principal $account -Settings $settings -Force | Out-Null
}

if (-not (Test-Administrator)) { Stop-With 'install.ps1 needs administrator rights; run it in a PowerShell that was started as administrator' }
if ($words.Count -gt 0 -and $words[0] -eq 'remove') {
    Remove-All
    Say "removed the task and the firewall rule; the registry, the ledger and the logs are still in $place"
    exit 0
}
if (-not (Test-Path -LiteralPath $python)) { Stop-With 'there is no .venv yet; run deploy\windows\serve.ps1 once' }
foreach ($word in $words) {
    if ($word -match '"') { Stop-With "the argument $word contains a quotation mark; set its value in oneseek.yaml instead" }
    if ($word -match '^--(host|home)') { Stop-With "$word cannot be set here: the server always uses the host 127.0.0.1 and the home $place" }
}
Push-Location -LiteralPath $root
try {
    # Check the arguments now, not at the next start of Windows.
    $port = Get-Port
    if ($port -eq '') { Stop-With 'the server refuses these arguments; the lines above give the reason' }
    if ($port -eq '0') { Stop-With 'with port 0, the port changes at every start; name a fixed port with --port' }
} finally {
    Pop-Location
}
Remove-All
[IO.Directory]::CreateDirectory($logs) | Out-Null
Grant-ToService $place 'M'
Grant-ToService $root 'RX'
Grant-ToService (Get-BaseFolder) 'RX'
# Block by port, because the program that listens is the Python that .venv uses. Firewall rules do not affect loopback.
New-NetFirewallRule -DisplayName $rule -Direction Inbound -Action Block -Protocol TCP -LocalPort $port -Profile Any | Out-Null
Register-Task
Start-ScheduledTask -TaskName $task
Say "OneSeek is starting; its log is $logs\oneseek.log. To remove it, run: deploy\windows\install.ps1 remove"
exit 0
