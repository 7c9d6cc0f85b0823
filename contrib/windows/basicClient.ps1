# A client that lends this machine at night, for the Task Scheduler; see ..\README.md.
$folder = "$HOME\training"
$action = New-ScheduledTaskAction -Execute "$folder\.venv\Scripts\pythonw.exe" `
    -WorkingDirectory $folder `
    -Argument "basicClient.py lab-host --wait --hours 20-08 --noBattery --workers 0 --quiet"
$settings = New-ScheduledTaskSettingsSet -ExecutionTimeLimit 0 -RestartCount 3 `
    -RestartInterval (New-TimeSpan -Minutes 1) -DontStopIfGoingOnBatteries
Register-ScheduledTask -TaskName "basicClient" -Action $action -Settings $settings `
    -Trigger (New-ScheduledTaskTrigger -AtLogOn)
